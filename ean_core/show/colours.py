"""Colors of figures and strips."""

#: Okabe and Ito's colors, distinguishable for color-blind readers.
COLOURS = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00")
EMPTY, INK = "#E4E4E4", "#222222"
