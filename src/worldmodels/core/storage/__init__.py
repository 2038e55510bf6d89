"""Files in other places: folders in buckets and on web servers, copied, mirrored and read through a bounded cache.

A folder in a bucket has the same files as on a disk, and a manifest of their sizes and checksums, which is written
last: what the manifest does not name is not there.
"""
