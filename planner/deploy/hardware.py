"""What each target calls a GPU of the catalogue. A GPU that is not in a table is left to the user, and said.

Products as NVIDIA's GPU feature discovery labels nodes: the device's own name with dashes (github:NVIDIA/k8s-device-plugin docs/gpu-feature-discovery).
SkyPilot: docs.skypilot.co compute/gpus (`sky gpus list`). Ray: ray.util.accelerators.
"""

from __future__ import annotations

PRODUCTS = {
    "L4": "NVIDIA-L4",
    "A10G": "NVIDIA-A10G",
    "A10": "NVIDIA-A10",
    "A30": "NVIDIA-A30",
    "A40": "NVIDIA-A40",
    "L40": "NVIDIA-L40",
    "L40S": "NVIDIA-L40S",
    "A100-PCIe-40GB": "NVIDIA-A100-PCIE-40GB",
    "A100-SXM-40GB": "NVIDIA-A100-SXM4-40GB",
    "A100-PCIe-80GB": "NVIDIA-A100-80GB-PCIe",
    "A100-SXM-80GB": "NVIDIA-A100-SXM4-80GB",
    "H100-PCIe-80GB": "NVIDIA-H100-PCIe",
    "H100-SXM-80GB": "NVIDIA-H100-80GB-HBM3",
    "H100-NVL-94GB": "NVIDIA-H100-NVL",
    "H200-SXM-141GB": "NVIDIA-H200",
    "H200-NVL-141GB": "NVIDIA-H200-NVL",
    "B200-SXM": "NVIDIA-B200",
    "GB200": "NVIDIA-GB200",
    "B300-SXM": "NVIDIA-B300-SXM6-AC",
    "GB300": "NVIDIA-GB300",
    "RTX-PRO-6000-Server": "NVIDIA-RTX-PRO-6000-Blackwell-Server-Edition",
}
SKYPILOT = {
    "L4": "L4", "A10G": "A10G", "A10": "A10", "A40": "A40", "L40": "L40", "L40S": "L40S", "A100-SXM-40GB": "A100", "A100-PCIe-40GB": "A100",
    "A100-SXM-80GB": "A100-80GB", "A100-PCIe-80GB": "A100-80GB", "H100-SXM-80GB": "H100", "H100-PCIe-80GB": "H100", "H200-SXM-141GB": "H200",
    "B200-SXM": "B200", "GB200": "GB200", "B300-SXM": "B300", "MI300X": "MI300X", "RTX-PRO-6000-Server": "RTXPRO6000",
}  # fmt: skip
RAY = {
    "L4": "L4", "A10G": "A10G", "A30": "A30", "A40": "A40", "L40S": "L40S", "A100-SXM-40GB": "A100-40G", "A100-SXM-80GB": "A100-80G",
    "H100-SXM-80GB": "H100", "H200-SXM-141GB": "H200", "B200-SXM": "B200", "B300-SXM": "B300", "MI300X": "AMD-Instinct-MI300X-OAM",
}  # fmt: skip
CLOUDS = {"aws": "aws", "gcp": "gcp", "azure": "azure", "lambda": "lambda", "runpod": "runpod", "nebius": "nebius", "oci": "oci"}


def resource(gpu: str) -> str:
    """The name under which Kubernetes counts GPUs of a vendor, told by the catalogue's name of the GPU."""
    return "amd.com/gpu" if is_amd(gpu) else "habana.ai/gaudi" if gpu.startswith("Gaudi") else "nvidia.com/gpu"


def is_amd(gpu: str) -> bool:
    """Whether it is one of AMD's."""
    return gpu.startswith("MI")


def is_nvidia(gpu: str) -> bool:
    """Whether it is one of NVIDIA's."""
    return resource(gpu) == "nvidia.com/gpu"
