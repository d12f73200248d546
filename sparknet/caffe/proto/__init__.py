"""Caffe's messages under pycaffe's name: ``from sparknet.caffe.proto import caffe_pb2``."""

from sparknet.caffe.proto import caffe_pb2

__all__ = ["caffe_pb2"]
