"""A web page where one tries a counter on pictures."""

# Annotations are evaluated here, unlike in other modules: Gradio finds by them which argument is a click, and Gradio is
# imported only where a page is built, for it takes seconds and is optional.

import html
import os
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from tasks.pictures import read_picture
from tasks.showing import HEAT, NARROWEST, shown_size

from .box import Point, box_between, count_in, draw_corners, next_corners, picture_point
from .counter import Counter
from .drawing import draw_crowd
from .overlay import SQUARE, Heat, display_density, draw_overlay, people, round_top

if TYPE_CHECKING:
    import gradio

#: Requests that may wait; more are told to come back.
WAITING = 32
#: Uploads and results are deleted when they are so old, in seconds; how often that is looked after.
KEPT_S, SWEEP_S = 3600, 600
#: People in the drawn examples.
EXAMPLES = (8, 45, 160)


@dataclass(frozen=True)
class Limits:
    """What a visitor may send.

    Args:
        upload_mb: of a file, in MiB.
        megapixels: of a picture, in millions of pixels.
    """

    upload_mb: float = 20
    megapixels: float = 50

    def __post_init__(self) -> None:
        for name, value in (("--max-mb", self.upload_mb), ("--max-pixels", self.megapixels)):
            if not 0 < value < float("inf"):
                raise ValueError(f"{name} is a number above 0, got {value}")


# ---------------------------------------------------------------- what a visitor sees


@dataclass(frozen=True)
class Counted:
    """A picture that was counted, kept for its visitor.

    Args:
        pixels: RGB, at most as large as shown.
        density: people a pixel of the picture, ``(H, W)``.
        count: of people.
        seconds: that counting took.
        top: of the colour bar, see :class:`~tasks.crowd_counting.overlay.Heat`.
        overlay: without the box.
        corners: of the box that was clicked so far.
    """

    pixels: NDArray[np.uint8]
    density: NDArray[np.float32]
    count: float
    seconds: float
    top: float
    overlay: Image.Image
    corners: tuple[Point, ...] = ()

    @property
    def shape(self) -> tuple[int, int]:
        """Height and width of the picture."""
        height, width = self.density.shape
        return height, width

    def with_opacity(self, opacity: float) -> "Counted":
        """With another overlay; the network does not run for it."""
        overlay = draw_overlay(self.pixels, self.density, people(self.count), Heat(opacity, self.top))
        return replace(self, overlay=overlay)

    def draw(self) -> Image.Image:
        """The overlay with what was clicked on it."""
        return draw_corners(self.overlay, self.corners, self.shape)


def count_picture(counter: Counter, path: Path, limits: Limits, opacity: float = Heat.opacity) -> Counted:
    """Count in a file that a visitor sent.

    Raises:
        ValueError: if it cannot be read, or is too large; the message has the file's name, and not its folder.
    """
    try:
        pixels = read_picture(path, round(limits.megapixels * 1e6))
    except FileNotFoundError:
        raise ValueError(f"{path.name} is no longer here, pictures are deleted after a while; send it again") from None
    except ValueError as error:
        raise ValueError(str(error).replace(str(path), path.name)) from error
    height, width = pixels.shape[:2]
    across, down = shown_size((height, width))
    if across < NARROWEST:
        raise ValueError(
            f"{path.name} is too long for its width to be shown: {width} x {height} pixels; cut it into parts"
        )
    start = time.perf_counter()
    try:
        count, density = counter(pixels)
    except (MemoryError, RuntimeError) as error:  # PyTorch says it by a RuntimeError
        if isinstance(error, RuntimeError) and "memory" not in str(error).lower():
            raise
        raise ValueError(
            f"{path.name} is too large for this machine's memory: {width} x {height} pixels; make it smaller"
        ) from error
    seconds = time.perf_counter() - start
    if across < width:  # what is kept need not be larger than what is drawn
        pixels = np.asarray(Image.fromarray(pixels).resize((across, down), Image.Resampling.BILINEAR))
    top = round_top(display_density(density))
    overlay = draw_overlay(pixels, density, people(count), Heat(opacity, top))
    return Counted(pixels, density, count, seconds, top, overlay)


def describe(counted: Counted | None) -> str:
    """The counts as HTML: of the picture, and of the box once it has both corners."""
    if counted is None:
        return _figures(_figure("", "No count yet", "Send a picture, or click an example.", "picture"))
    height, width = counted.shape
    details = f"{counted.count:,.2f} unrounded · {width:,} × {height:,} px · {counted.seconds:.2f} s"
    whole = _figure(f"{round(counted.count):,}", _in("picture", counted.count), details, "picture")
    if not counted.corners:
        return _figures(whole)
    if len(counted.corners) == 1:
        return _figures(whole, _figure("", "One corner of a box", "Now click the opposite one.", "box"))
    box = box_between(*counted.corners)
    count = count_in(counted.density, box)
    details = f"{count:,.2f} unrounded · {box.right - box.left:,} × {box.bottom - box.top:,} px"
    return _figures(whole, _figure(f"{round(count):,}", _in("box", count), details, "box"))


def _in(what: str, count: float) -> str:
    return f"{people(count).split()[1]} in the {what}"


def _figures(*figures: str) -> str:
    return f'<div class="figures" aria-live="polite">{"".join(figures)}</div>'


def _figure(number: str, unit: str, details: str, kind: str) -> str:
    large = (
        f'<span class="number">{html.escape(number)}</span> ' if number else '<span class="number none">&nbsp;</span>'
    )
    return (
        f'<div id="count-of-{kind}"><div class="line">{large}<span class="unit">{html.escape(unit)}</span></div>'
        f'<div class="details">{html.escape(details)}</div></div>'
    )


def describe_heat(counted: Counted | None) -> str:
    """The colour bar as HTML, for phones, on which that of the overlay is too small to be read."""
    if counted is None:
        return ""
    steps = [f"rgb({','.join(str(round(255 * part)) for part in HEAT(step)[:3])})" for step in np.linspace(0, 1, 9)]
    return (
        f'<div class="bar" style="background: linear-gradient(to right, {", ".join(steps)})"></div>'
        f'<div class="ends"><span>0</span><span>people on {SQUARE} × {SQUARE} px</span><span>{counted.top:g}</span>'
        "</div>"
    )


# ---------------------------------------------------------------- the page

#: What an event returns: what is kept, the result, the counts, and the colour bar.
Shown = tuple[Counted | None, Image.Image | None, str, str]

CSS = """
.gradio-container { max-width: 1200px !important; margin: 0 auto !important; }
#intro .html-container, #counts .html-container, #bar .html-container { padding: 0 !important; }
#intro h1 { font-size: 1.6rem; font-weight: 650; letter-spacing: -0.01em; margin: 0 0 .25rem; }
#intro p, .hint p { color: var(--body-text-color-subdued); margin: 0; line-height: 1.45; }
#intro code { font-size: .9em; overflow-wrap: anywhere; }
.hint p { font-size: .9rem; }
#counts .figures { display: flex; flex-wrap: wrap; gap: .5rem 3rem; min-height: 4.75rem; }
#counts .line { display: flex; align-items: baseline; gap: .5rem; }
#counts .number.none { width: 0; margin-right: -.5rem; }
#counts .number { font-size: 2.75rem; font-weight: 700; line-height: 1.1; font-variant-numeric: tabular-nums; }
#counts .unit { font-size: 1.1rem; }
#counts .details { color: var(--body-text-color-subdued); font-size: .9rem; font-variant-numeric: tabular-nums; }
#bar { display: none; }
#bar .bar { height: .75rem; border-radius: 2px; }
#bar .ends { display: flex; justify-content: space-between; font-size: .8rem; margin-top: .2rem; }
@media (max-width: 640px) {
    .main.fillable { padding: 16px !important; }
    #bar { display: block; }
}
"""

#: Bring the counts of a new picture into sight where they are below it, on phones.
SCROLL = """() => {
    const counts = document.getElementById("counts");
    if (document.querySelector("#result img") && counts.getBoundingClientRect().top > window.innerHeight / 2)
        counts.scrollIntoView();
}"""


def build_page(counter: Counter, limits: Limits, folder: Path) -> "gradio.Blocks":
    """The page where one tries a counter.

    Args:
        counter: that counts, in one picture at a time.
        limits: of what visitors may send; that of files is ``launch``'s to enforce.
        folder: to draw the examples into.

    Raises:
        ImportError: if Gradio is not installed.
    """
    import_gradio()
    import gradio as gr

    def fail(text: str) -> gr.Error:
        # Gradio shows messages as HTML, and names of files are the visitors'.
        return gr.Error(html.escape(text, quote=False), duration=30, print_exception=False)

    def count(path: Path | None, opacity: float) -> Shown:
        if path is None:
            return show(None)
        try:
            return show(count_picture(counter, path, limits, opacity))
        except ValueError as error:
            raise fail(str(error)) from error

    def count_again(path: Path | None, opacity: float) -> Shown:
        if path is None:
            raise fail("there is no picture yet; send one, or click an example")
        return count(path, opacity)

    def redraw(opacity: float, counted: Counted | None) -> Shown:
        return show(counted and counted.with_opacity(opacity))

    def click(event: gr.SelectData, counted: Counted | None) -> Shown:
        if counted is None:
            raise fail("this picture is no longer in memory; press Count first")
        x, y = event.index
        point = picture_point((float(x), float(y)), counted.shape)
        return show(replace(counted, corners=next_corners(counted.corners, point)))

    def clear(counted: Counted | None) -> Shown:
        return show(counted and replace(counted, corners=()))

    examples = draw_examples(folder)
    # One at a time for all visitors: the network's memory is needed once, and no answer overtakes another.
    in_turn: dict[str, Any] = {"concurrency_id": "counter", "concurrency_limit": 1, "api_visibility": "private"}
    at_once: dict[str, Any] = {"queue": False, "show_progress": "hidden", "api_visibility": "private"}
    with gr.Blocks(title="Crowd counter", analytics_enabled=False, delete_cache=(SWEEP_S, KEPT_S)) as page:
        gr.HTML(
            "<h1>Crowd counter</h1><p>How many people are in a picture, and where. Pictures go no further than the "
            "machine that serves this page, which deletes them after an hour.</p>"
            f"<p>Model: <code>{html.escape(counter.name)}</code></p>",
            elem_id="intro",
            padding=False,
        )
        state = gr.State(None, time_to_live=KEPT_S)
        with gr.Row(equal_height=False):
            with gr.Column(scale=2, min_width=320):
                picture = gr.Image(
                    type="filepath",
                    image_mode=None,
                    format="png",
                    sources=["upload", "webcam", "clipboard"],
                    webcam_options=gr.WebcamOptions(mirror=False),
                    label="Picture",
                    height=300,
                    elem_id="picture",
                )
                button = gr.Button("Count", variant="primary", elem_id="count")
                gr.Markdown(
                    f"At most {limits.upload_mb:g} MB and {limits.megapixels:g} million pixels.",
                    elem_classes="hint",
                )
                choice = gr.Dataset(
                    components=[picture],
                    samples=[[str(path)] for path in examples],
                    type="index",
                    label="Drawn examples",
                    elem_id="examples",
                )
                gr.Markdown(
                    "These are drawings, not photographs; a counter trained on photographs may be off on them.",
                    elem_classes="hint",
                )
            with gr.Column(scale=3, min_width=320):
                counts = gr.HTML(describe(None), elem_id="counts", padding=False)
                result = gr.Image(
                    type="pil",
                    format="jpeg",
                    interactive=False,
                    label="People on the picture",
                    show_label=False,
                    buttons=["download", "fullscreen"],
                    elem_id="result",
                )
                bar = gr.HTML("", elem_id="bar", padding=False)
                with gr.Row(equal_height=False):
                    with gr.Column(scale=4, min_width=240):
                        gr.Markdown(
                            "Click two opposite corners on the picture to count the people in a box; a third click "
                            "starts a new one.",
                            elem_classes="hint",
                        )
                    clearing = gr.Button("Clear the box", size="sm", scale=1, min_width=130, elem_id="clear")
                opacity = gr.Slider(0, 1, Heat.opacity, step=0.05, label="Opacity of the heat", elem_id="opacity")
        # What Gradio would do is to open the file, and to fail for what is no picture without saying why.
        vars(picture)["preprocess"] = _as_sent
        shown = [state, result, counts, bar]
        # An example is set as a plain value: an update would replace the component, and its preprocess with it.
        choice.click(lambda number: str(examples[number]), choice, picture, trigger_mode="always_last", **at_once)
        changed = picture.change(lambda: show(None), None, shown, **at_once)
        # Gradio drops what comes while an event runs, and so would leave the count of the picture before.
        counting: dict[str, Any] = {"trigger_mode": "always_last", "show_progress_on": result, **in_turn}
        for done in (
            changed.then(count, [picture, opacity], shown, **counting),
            button.click(count_again, [picture, opacity], shown, **counting),
        ):
            done.success(js=SCROLL, api_visibility="private")
        opacity.change(redraw, [opacity, state], shown, trigger_mode="always_last", show_progress="hidden", **in_turn)
        result.select(click, state, shown, trigger_mode="multiple", show_progress="hidden", **in_turn)
        clearing.click(clear, state, shown, show_progress="hidden", **in_turn)
    page.queue(max_size=WAITING, default_concurrency_limit=1, api_open=False)
    return page


def show(counted: Counted | None) -> Shown:
    """What the page keeps and shows of a picture."""
    return counted, counted.draw() if counted else None, describe(counted), describe_heat(counted)


def draw_examples(folder: Path) -> list[Path]:
    """Drawn crowds, as files."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for number in EXAMPLES:
        path = folder / f"drawn_crowd_of_{number}.png"
        draw_crowd(number, seed=number)[0].save(path)
        paths.append(path)
    return paths


def import_gradio() -> None:
    """Import Gradio with its telemetry and its records of runs off.

    Raises:
        ImportError: if it is not installed, or of a version that has other functions.
    """
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
    os.environ["GRADIO_RUN_HISTORY"] = "False"
    try:
        import gradio
    except ImportError as error:
        raise ImportError('the page needs Gradio: pip install "ean-zoo[serve]"') from error
    if int(gradio.__version__.split(".")[0]) < 6:
        raise ImportError(f'the page needs Gradio 6, not {gradio.__version__}: pip install -U "ean-zoo[serve]"')


def _as_sent(payload: Any) -> Path | None:
    """The file of a picture as its visitor sent it, whatever is in it."""
    return Path(payload.path) if payload is not None and payload.path else None
