"""Each process of a test computes in one thread. Threads that wait by spinning, in every worker and its children, took a third of the time.

To be imported before what computes; what is set already stays.
"""

import os

for name, value in {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "OMP_WAIT_POLICY": "passive"}.items():
    os.environ.setdefault(name, value)
