"""Moment tensor potentials: basis, kernels, fit, active set, relaxation, file formats."""
