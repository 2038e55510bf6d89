"""What was measured, as tables and plots: training curves, the fidelity of dreams, probes of V."""
