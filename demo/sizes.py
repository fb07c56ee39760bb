"""The sizes of gemma3n-nano: all features of Gemma 3n, at a size that two cores can train."""

from typing import Any

from timm.models._efficientnet_builder import decode_arch_def

IMAGE_SIDE = 128  # pixels
IMAGE_GRID = 4
IMAGE_TOKENS = IMAGE_GRID * IMAGE_GRID
VISION_WIDTH = 2048  # channels; what MobileNetV5's fusion adapter always emits

VISION_STAGES = [  # in timm's notation; see decode_arch_def
    ["er_r1_k3_s2_e2_c24"],
    ["er_r1_k3_s2_e3_c48"],
    ["er_r1_k3_s2_e3_c96", "uir_r1_a3_k3_s1_e2_c96"],
    [
        "er_r1_k3_s2_e2_c160",
        "mqa_r1_k3_h4_s1_d32_c160",
        "uir_r1_a0_k0_s1_e2_c160",
        "mqa_r1_k3_h4_s1_d32_c160",
        "uir_r1_a0_k0_s1_e2_c160",
    ],
]


def vision_args() -> dict[str, Any]:
    """Arguments of timm for the vision tower; a new dictionary each time, because timm changes it."""
    return {
        "block_args": decode_arch_def(VISION_STAGES),
        "stem_size": 16,
        "msfa_indices": [-1],  # fusing 64 places instead of 16 into 2,048 channels takes twice the time
        "msfa_output_resolution": IMAGE_GRID,
        "layer_scale_init_value": None,  # deep towers start small; this one is not deep
    }


TEXT_VOCAB = 2048  # then the ids of the vision embedder, then those of the audio embedder
MM_VOCAB = 16
AUDIO_TOKENS = 64  # 160 ms each
CONTEXT = 4096  # tokens

TEXT: dict[str, Any] = {
    "hidden_size": 192,
    "intermediate_size": 512,
    "num_hidden_layers": 4,
    "num_kv_shared_layers": 1,
    "layer_types": ["sliding_attention", "full_attention"] * 2,
    "num_attention_heads": 6,
    "num_key_value_heads": 2,
    "head_dim": 32,
    "hidden_size_per_layer_input": 16,
    "laurel_rank": 8,
    "altup_num_inputs": 2,
    "sliding_window": 128,
    "max_position_embeddings": CONTEXT,
    "activation_sparsity_pattern": [0.9, 0.0, 0.0, 0.0],
}

AUDIO: dict[str, Any] = {
    "hidden_size": 96,
    "conf_num_hidden_layers": 2,
    "conf_num_attention_heads": 4,
    "sscp_conv_channel_size": [16, 8],
}
