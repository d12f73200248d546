"""A folder of pictures by class and a Caffe net.

python docs/examples/picture_folder.py FOLDER          FOLDER/cat/1.png, FOLDER/dog/2.png, ...
"""

import sys
import tempfile
from pathlib import Path

from sparknet.data import Transform
from sparknet.sources import open_source
from sparknet.spark import session
from sparknet.trainer import Lines, Trainer

SOLVER = """
net_param {
  name: "pictures"
  layer { name: "d" type: "Input" top: "data" top: "label"
          input_param { shape { dim: 32 dim: 3 dim: 32 dim: 32 } shape { dim: 32 } } }
  layer { name: "conv" type: "Convolution" bottom: "data" top: "conv"
          convolution_param { num_output: 8 kernel_size: 5 stride: 2 weight_filler { type: "xavier" } } }
  layer { name: "relu" type: "ReLU" bottom: "conv" top: "conv" }
  layer { name: "ip" type: "InnerProduct" bottom: "conv" top: "ip"
          inner_product_param { num_output: 2 weight_filler { type: "xavier" } } }
  layer { name: "loss" type: "SoftmaxWithLoss" bottom: "ip" bottom: "label" top: "loss" }
}
base_lr: 0.01 momentum: 0.9 lr_policy: "fixed"
"""

if __name__ == "__main__":
    spark = session("pictures")
    solver = Path(tempfile.mkdtemp()) / "solver.prototxt"
    solver.write_text(SOLVER)
    source = open_source(sys.argv[1], size=32)
    trainer = Trainer(
        model=solver, transform=Transform(scale=1 / 256), rounds=10, callbacks=[Lines()], output="trained"
    )
    trained = trainer.fit(source, spark=spark)
    print(f"loss {trained.history[-1].loss:.3f}; model.caffemodel and report.html are in {trained.output}")
    spark.stop()
