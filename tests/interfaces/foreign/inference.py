#!/usr/bin/env python3
"""Requests scores of a gateway with the HTTP client of the Triton model server: `inference.py http://127.0.0.1:8080`.

Prints one JSON object: the probability by each form of request, and an error as that client reads it.
Needs tritonclient[http].
"""

import json
import sys

import numpy
import tritonclient.http as triton

MODEL = "service-request"
RIDE = {"distance": 30.5, "healthpoints": 330, "magicpoints": 300, "tmin": 97, "tmax": 176, "prcp": 48}


def one_tensor(ride, binary):
    tensor = triton.InferInput("features", [1, len(ride)], "FP64")
    tensor.set_data_from_numpy(numpy.array([list(ride.values())], dtype=numpy.float64), binary_data=binary)
    return [tensor]


def named_tensors(ride):
    tensors = []
    for name, value in ride.items():
        tensor = triton.InferInput(name, [1], "FP64")
        tensor.set_data_from_numpy(numpy.array([value], dtype=numpy.float64))
        tensors.append(tensor)
    return tensors


def main():
    client = triton.InferenceServerClient(sys.argv[1].split("://", 1)[1])
    assert client.is_server_live() and client.is_server_ready() and client.is_model_ready(MODEL)
    metadata = client.get_model_metadata(MODEL)
    assert [tensor["name"] for tensor in metadata["inputs"]] == list(RIDE), metadata

    def ask(inputs, binary, version=""):
        outputs = [triton.InferRequestedOutput("probability", binary_data=binary)]
        answer = client.infer(MODEL, inputs, model_version=version, outputs=outputs)
        return float(answer.as_numpy("probability")[0])

    result = {
        "json": ask(one_tensor(RIDE, False), False),
        "binary": ask(one_tensor(RIDE, True), True),
        "named": ask(named_tensors(RIDE), True, metadata["versions"][0]),
    }
    try:
        ask(one_tensor({**RIDE, "distance": -1}, True), True)
    except triton.InferenceServerException as error:
        result["error"] = error.message()
    print(json.dumps(result))


if __name__ == "__main__":
    main()
