"""What a run is shown as: metrics, tables, figures, pages, MLflow. No torch."""
