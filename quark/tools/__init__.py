"""Tools for users, besides the workflow: plan, status, demo, export and calibration."""
