//! The workload manager: jobspec, scheduler, brokers, shell and PMI.
