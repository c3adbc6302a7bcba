//! Raw HTTP/1: what each thing that is written gives.
