"""What people look at: the verdict on a terminal and the report page. Renders, never computes."""
