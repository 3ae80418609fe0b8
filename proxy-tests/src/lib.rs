//! End-to-end tests of Argon: the real binary, a real mongod, real drivers.
