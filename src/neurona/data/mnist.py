"""MNIST: 60,000 + 10,000 hand-written digits of 28 × 28 pixels."""

from __future__ import annotations

from typing import ClassVar

from neurona.data.idx import IdxImages


class Mnist(IdxImages):
    """MNIST (LeCun, Cortes and Burges, 1998): 784 pixels, 10 digits, from the mirrors PyTorch and CVDF keep."""

    class_names = tuple("0123456789")
    mirrors = (
        "https://ossci-datasets.s3.amazonaws.com/mnist/",
        "https://storage.googleapis.com/cvdf-datasets/mnist/",
    )
    md5: ClassVar = {
        "train-images-idx3-ubyte": "f68b3c2dcbeaaa9fbdd348bbdeb94873",
        "train-labels-idx1-ubyte": "d53e105ee54ea40749a09fcbcd1e9432",
        "t10k-images-idx3-ubyte": "9fb629c4189551a2d022fa330f9573f3",
        "t10k-labels-idx1-ubyte": "ec29112dd5afa0611ce80d1b7f02629c",
    }
