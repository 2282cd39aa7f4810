"""`torch_ref.train`, whose rank 0 writes its lines into a pipe that is nearly full and never read.

Started by torchrun, for the test of a process that hangs.
"""

import fcntl
import os
import sys

from torch_ref.train import main

if __name__ == "__main__":
    if os.environ["RANK"] == "0":
        unread, pipe = os.pipe()
        size = fcntl.fcntl(pipe, fcntl.F_SETPIPE_SZ, 4096)
        os.write(pipe, bytes(size - 10))
        os.dup2(pipe, 2)
    sys.exit(main())
