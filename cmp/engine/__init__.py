"""Drawing and merging, with torch and diffusers. Importing this package makes those libraries quiet: what matters is told as errors."""

import diffusers.utils.logging as _diffusers_logging
import transformers.utils.logging as _transformers_logging

_diffusers_logging.set_verbosity_error()
_diffusers_logging.disable_progress_bar()
_transformers_logging.set_verbosity_error()
_transformers_logging.disable_progress_bar()
