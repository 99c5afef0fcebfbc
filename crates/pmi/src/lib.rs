//! `libpmi.so`: the PMI-1 client library that Open MPI 4 loads.
