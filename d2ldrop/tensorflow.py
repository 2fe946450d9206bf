"""Another name for `d2ldrop.tf`, the one that readers of the book know: `from d2ldrop import tensorflow as d2l`."""

import sys

from d2ldrop import tf

sys.modules[__name__] = tf
