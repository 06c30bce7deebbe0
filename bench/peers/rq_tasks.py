"""A job that says who it is and then works for a long time."""

import os
import time


def work(name):
    with open(os.path.join(os.environ["PEER_FOLDER"], name), "w") as file:
        file.write(str(os.getpid()))
    time.sleep(600)
