"""Many clips: a plan is checked, worked through by processes of one machine or of a cluster, and reported on."""
