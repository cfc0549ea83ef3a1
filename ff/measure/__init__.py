"""Measuring a trained network: what is timed and when, on which devices, the energy it takes, and whether they agree.

`run.run_measurement` writes variance/{device}.* of a run folder, `agreement.run_agreement` variance/agreement.json.
"""
