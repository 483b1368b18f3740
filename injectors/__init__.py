"""The ways into a target. Each folder is one way, and none of them imports another."""
