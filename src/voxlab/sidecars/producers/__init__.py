"""Functions that make columns, one per option of `producers=`: `produce(item, times, **settings) -> {name: (T,)}`."""
