"""Networks: nn.Modules and the descriptions they are built from."""
