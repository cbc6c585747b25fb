"""Hands parts of the work out to other machines, over Dask. Only here is its library known, and it is loaded late."""
