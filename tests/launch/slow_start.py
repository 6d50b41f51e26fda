"""A plugin that takes its time: a run that uses it is still starting when its parent dies."""

import time

time.sleep(600)
