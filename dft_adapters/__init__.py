"""DFT engines behind one Protocol: any ASE calculator and Quantum ESPRESSO."""
