"""Tables and plots of measurements: training curves, the fidelity of dreams, and linear probes of V."""
