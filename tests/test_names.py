"""Names of networks: their order, their variants, their twins."""

import pytest

from bnnlib.names import ALL_MODELS, UNCONVERGED, in_order, network_of, twin_of


def test_variants_follow_their_network_and_own_models_come_last():
    present = ["mine ensemble(2)", "CNN_FC ensemble(3)", "mine", "CNN_FC", "BNN_FC_flip", "CNN_FC"]
    assert in_order(present) == [
        "BNN_FC_flip",
        "CNN_FC",
        "CNN_FC ensemble(3)",
        "mine",
        "mine ensemble(2)",
    ]
    assert in_order(reversed(ALL_MODELS)) == list(ALL_MODELS)


@pytest.mark.parametrize(
    ("name", "network"),
    [
        ("CNN_FC", "CNN_FC"),
        ("CNN_FC ensemble(5)", "CNN_FC"),
        ("BNN_FC_flip converged(no)", "BNN_FC_flip"),
        ("CNN_FC dropout(0.1) ensemble(5)", "CNN_FC"),
        ("my own network", "my own network"),
        ("my own network ensemble(2)", "my own network"),
    ],
)
def test_the_network_of_a_variant(name, network):
    assert network_of(name) == network


def test_twins():
    pairs = {name: twin_of(name) for name in ALL_MODELS}
    assert pairs["BNN_conv_flip"] == pairs["BNN_conv_nonflip"] == "CNN_conv"
    assert pairs["BNN_FC_flip"] == "CNN_FC"
    assert pairs["BNN_VGG_flip"] == pairs["BNN_VGG_local"] == "CNN_VGG"
    assert (pairs["BNN_FC_local"], pairs["BNN_conv_local"]) == ("CNN_FC", "CNN_conv")
    assert pairs["BNN_LeNet5_local"] == "CNN_LeNet5"
    assert pairs["BNN_ResNet20_FRN_nonflip"] == "CNN_ResNet20_FRN"
    assert pairs["CNN_FC"] is pairs["CNN_ResNet20_FRN"] is None
    assert twin_of("BNN_FC_flip ensemble(2)") is None
    assert twin_of("BNN_FC_flip" + UNCONVERGED) == "CNN_FC"
    assert twin_of("BNN_FC_flip ensemble(2)" + UNCONVERGED) is None
    assert twin_of("CNN_FC inference(ivon)") == "CNN_FC"
    assert twin_of("CNN_FC inference(ivon) ensemble(2)") is None
    assert twin_of("BNN_of_mine") is None
