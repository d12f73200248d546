"""The messages of ``sparknet.caffe.schema.caffe_pb2``, under the name that scripts for pycaffe import."""

from sparknet.caffe.schema.caffe_pb2 import *  # noqa: F403
