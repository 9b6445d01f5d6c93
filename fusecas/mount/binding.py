"""Which pyfuse3 is there; it can't be loaded without libfuse3, and then neither can this."""

import pyfuse3

VERSION = pyfuse3.__version__
