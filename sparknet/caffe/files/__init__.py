"""The files Caffe writes and reads: weights, single blobs and solver states, binary or HDF5."""
