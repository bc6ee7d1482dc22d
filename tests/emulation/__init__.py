"""Runs the CUDA backend without a GPU: its kernels through g++ on the CPU, its launchers on a strict stand-in for cupy.

    shim.h        what CUDA C needs of a host: thread and block indices, barriers as fibers, any order of the threads
    host.py       kernels.cu -> g++ -> a shared library, cached; launched through ctypes
    fakecupy.py   `import cupy` of the tests: opaque arrays, checked launches, red zones, counted transfers
    nvrtc.py      NVIDIA's compiler, which needs no GPU: every architecture, and PTX for
    ptx.py        PTX -> C++ with ptx.h, which checks every access: bounds, alignment, unwritten memory, races
    api.py        does the real cupy have every name that the backend uses?
    faults.py     plants faults and reports which of these checks sees each

What none of it can show: results of cuBLAS, streams, the size of a real device's memory, speed.
"""
