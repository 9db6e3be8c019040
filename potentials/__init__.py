"""What an MTP is: basis, kernels, fit, active set, relaxation, file formats. Arrays and files only."""
