"""The one writer: shards cut, committed and gone on with, in a folder or a bucket."""
