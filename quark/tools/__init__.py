"""For people beside the workflow: plan, status, demo, export, calibration."""
