"""A web page to try a counter on images."""

# Unlike in other modules, annotations are evaluated here: Gradio uses them to find the click argument. Gradio is
# imported only when a page is built, because it takes seconds and is optional.

import html
import io
import os
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ean_core.data.images import BOUNDED_FORMATS, read_image
from tasks.pictures import save_picture
from tasks.showing import HEAT, NARROWEST, shown_size

from .box import Point, box_between, count_in, draw_corners, next_corners, picture_point
from .choices import MEGAPIXELS, UPLOAD_MB
from .counter import Counter
from .drawing import draw_crowd
from .guard import VISITOR
from .kept import GONE, KEPT_S, KeptFiles, open_regular
from .overlay import SQUARE, UNFAMILIAR, Heat, display_density, draw_overlay, people, people_within, round_top

if TYPE_CHECKING:
    import gradio

#: Maximum number of waiting requests; further ones are asked to come back later.
WAITING = 32
#: Number of people in each drawn example.
EXAMPLES = (8, 45, 160)


@dataclass(frozen=True)
class Limits:
    """Limits for visitors' uploads.

    Args:
        upload_mb: maximum file size, in MiB.
        megapixels: maximum image size, in millions of pixels.
    """

    upload_mb: float = UPLOAD_MB
    megapixels: float = MEGAPIXELS

    def __post_init__(self) -> None:
        for name, value in (("--max-mb", self.upload_mb), ("--max-pixels", self.megapixels)):
            if not 0 < value < float("inf"):
                raise ValueError(f"{name} must be a number above 0, got {value}")


# ---------------------------------------------------------------- results


@dataclass(frozen=True)
class Counted:
    """An image with its count, kept for its visitor.

    Args:
        pixels: RGB image, at most as large as displayed.
        density: people per pixel of the full-size image, ``(H, W)``.
        count: number of people.
        seconds: time that counting took.
        top: upper end of the color bar, see :class:`~tasks.crowd_counting.overlay.Heat`.
        overlay: overlay without the box.
        corners: corners of the box clicked so far.
        error: expected error, in people; None if unknown, or if the image is unlike the training images.
        familiar: whether the image is like the training images; None if unknown.
    """

    pixels: NDArray[np.uint8]
    density: NDArray[np.float32]
    count: float
    seconds: float
    top: float
    overlay: Image.Image
    corners: tuple[Point, ...] = ()
    error: int | None = None
    familiar: bool | None = None

    @property
    def shape(self) -> tuple[int, int]:
        """Height and width of the full-size image."""
        height, width = self.density.shape
        return height, width

    def with_opacity(self, opacity: float) -> "Counted":
        """Return a copy with a new overlay, without running the network again."""
        heat = Heat(opacity, self.top)
        return replace(self, overlay=_overlay(self.pixels, self.density, self.count, heat, self.error, self.familiar))

    def draw(self) -> Image.Image:
        """Return the overlay with the clicked corners or box."""
        return draw_corners(self.overlay, self.corners, self.shape)


def _overlay(
    pixels: NDArray[np.uint8],
    density: NDArray[np.float32],
    count: float,
    heat: Heat,
    error: int | None,
    familiar: bool | None,
) -> Image.Image:
    return draw_overlay(pixels, density, people_within(count, error), heat, UNFAMILIAR if familiar is False else None)


def count_picture(counter: Counter, path: Path, limits: Limits, opacity: float = Heat.opacity) -> Counted:
    """Count in a visitor's upload.

    Raises:
        ValueError: if it cannot be read, or is too large; the message gives the file's name without its folder.
    """
    try:
        with open_regular(path) as file:
            pixels = read_image(file, round(limits.megapixels * 1e6), BOUNDED_FORMATS)
    except FileNotFoundError:
        raise ValueError(GONE) from None
    except ValueError as error:
        raise ValueError(str(error).replace(str(path), path.name)) from error
    height, width = pixels.shape[:2]
    across, down = shown_size((height, width))
    if across < NARROWEST:
        raise ValueError(
            f"{path.name} is too narrow for its height to be shown: {width} x {height} pixels; cut it into parts"
        )
    start = time.perf_counter()
    try:
        found = counter(pixels)
    except (MemoryError, RuntimeError) as error:  # PyTorch raises RuntimeError when out of memory
        if isinstance(error, RuntimeError) and "memory" not in str(error).lower():
            raise
        raise ValueError(
            f"{path.name} is too large for this machine's memory: {width} x {height} pixels; scale it down"
        ) from error
    seconds = time.perf_counter() - start
    if across < width:  # keep no more than is displayed
        pixels = np.asarray(Image.fromarray(pixels).resize((across, down), Image.Resampling.BILINEAR))
    top = round_top(display_density(found.density))
    trust = (None if found.familiar is False else counter.error_at(found.count), found.familiar)
    overlay = _overlay(pixels, found.density, found.count, Heat(opacity, top), *trust)
    return Counted(pixels, found.density, found.count, seconds, top, overlay, (), *trust)


def describe(counted: Counted | None) -> str:
    """Return the counts as HTML: that of the image, and that of the box once it has both corners."""
    if counted is None:
        return _figures(_figure("", "No count yet", "Upload an image, or click an example.", "picture"))
    height, width = counted.shape
    error = f", ±\u00a0{counted.error:,}" if counted.error is not None else ""
    details = f"{width:,} × {height:,} px · {counted.seconds:.2f} s"
    warning = "Unlike the training images of this counter: do not rely on this." if counted.familiar is False else ""
    whole = _figure(f"{round(counted.count):,}", _in("image", counted.count) + error, details, "picture", warning)
    if not counted.corners:
        return _figures(whole)
    if len(counted.corners) == 1:
        return _figures(whole, _figure("", "First corner set", "Now click the opposite corner of the box.", "box"))
    box = box_between(*counted.corners)
    count = count_in(counted.density, box)
    details = f"{box.right - box.left:,} × {box.bottom - box.top:,} px"
    return _figures(whole, _figure(f"{round(count):,}", _in("box", count), details, "box"))


def _in(what: str, count: float) -> str:
    return f"{people(count).split()[1]} in the {what}"


def _figures(*figures: str) -> str:
    return f'<div class="figures" aria-live="polite">{"".join(figures)}</div>'


def _figure(number: str, unit: str, details: str, kind: str, warning: str = "") -> str:
    large = (
        f'<span class="number">{html.escape(number)}</span> ' if number else '<span class="number none">&nbsp;</span>'
    )
    return (
        f'<div id="count-of-{kind}"><div class="line">{large}<span class="unit">{html.escape(unit)}</span></div>'
        f'<div class="details">{html.escape(details)}</div>'
        + (f'<div class="warning" role="alert">{html.escape(warning)}</div>' if warning else "")
        + "</div>"
    )


def describe_heat(counted: Counted | None) -> str:
    """Return the color bar as HTML, for phones, where that of the overlay is too small to read."""
    if counted is None:
        return ""
    steps = [f"rgb({','.join(str(round(255 * part)) for part in HEAT(step)[:3])})" for step in np.linspace(0, 1, 9)]
    return (
        f'<div class="bar" style="background: linear-gradient(to right, {", ".join(steps)})"></div>'
        f'<div class="ends"><span>0</span><span>people per {SQUARE} × {SQUARE} px</span><span>{counted.top:g}</span>'
        "</div>"
    )


# ---------------------------------------------------------------- the page

#: Result of an event: the kept state, the file of the overlay, the counts, and the color bar.
Shown = tuple[Counted | None, str | None, str, str]

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
#counts .warning { background: #FFC400; color: black; border-radius: 4px; padding: .35rem .6rem; margin-top: .4rem; }
#bar { display: none; }
#bar .bar { height: .75rem; border-radius: 2px; }
#bar .ends { display: flex; justify-content: space-between; font-size: .8rem; margin-top: .2rem; }
@media (max-width: 640px) {
    .main.fillable { padding: 16px !important; }
    #bar { display: block; }
}
"""

#: Scroll to the counts of a new image where they are below the screen, on phones.
SCROLL = """() => {
    const counts = document.getElementById("counts");
    if (document.querySelector("#result img") && counts.getBoundingClientRect().top > window.innerHeight / 2)
        counts.scrollIntoView();
}"""


def build_page(counter: Counter, limits: Limits, files: KeptFiles) -> "gradio.Blocks":
    """Build the page to try a counter, which has to be served behind the guard.

    Args:
        counter: counter to use, on one image at a time.
        limits: limits for uploads; the guard enforces that of the file size.
        files: visitors' files, which get the results; their folder has to be Gradio's own.

    Raises:
        ImportError: if Gradio is not installed.
    """
    import_gradio()
    import gradio as gr

    def fail(text: str) -> gr.Error:
        # Gradio renders messages as HTML, and file names come from visitors.
        return gr.Error(html.escape(text, quote=False), duration=30, print_exception=False)

    nothing = (None, None, describe(None), describe_heat(None))

    def show(counted: Counted | None, request: gr.Request) -> Shown:
        if counted is None:
            return nothing
        overlay = io.BytesIO()
        counted.draw().save(overlay, "JPEG")
        address = request.client.host if request.client else ""
        path = files.add(request.headers[VISITOR], address, "image.jpeg", overlay.getvalue())
        return counted, str(path), describe(counted), describe_heat(counted)

    def count(path: Path | None, opacity: float, request: gr.Request) -> Shown:
        if path is None:
            return nothing
        try:
            return show(count_picture(counter, path, limits, opacity), request)
        except ValueError as error:
            raise fail(str(error)) from error

    def count_again(path: Path | None, opacity: float, request: gr.Request) -> Shown:
        if path is None:
            raise fail("there is no image yet; upload one, or click an example")
        return count(path, opacity, request)

    def redraw(opacity: float, counted: Counted | None, request: gr.Request) -> Shown:
        return show(counted and counted.with_opacity(opacity), request)

    def click(event: gr.SelectData, counted: Counted | None, request: gr.Request) -> Shown:
        if counted is None:
            raise fail("this image is no longer in memory; press Count first")
        x, y = event.index
        point = picture_point((float(x), float(y)), counted.shape)
        return show(replace(counted, corners=next_corners(counted.corners, point)), request)

    def clear(counted: Counted | None, request: gr.Request) -> Shown:
        return show(counted and replace(counted, corners=()), request)

    examples = draw_examples(files.folder / "examples")
    files.share(*examples)
    # One at a time across visitors: the network's memory is needed once, and results stay in order.
    in_turn: dict[str, Any] = {"concurrency_id": "counter", "concurrency_limit": 1, "api_visibility": "private"}
    at_once: dict[str, Any] = {"queue": False, "show_progress": "hidden", "api_visibility": "private"}
    with gr.Blocks(title="Crowd counter", analytics_enabled=False) as page:
        gr.HTML(
            "<h1>Crowd counter</h1><p>Count the people in an image, and see where they are. Images stay on the machine "
            "that serves this page, and are deleted after an hour.</p>"
            f"<p>Model: <code>{html.escape(counter.name)}</code>; {html.escape(counter.reliability)}.</p>",
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
                    label="Image",
                    height=300,
                    elem_id="picture",
                )
                button = gr.Button("Count", variant="primary", elem_id="count")
                gr.Markdown(
                    f"At most {limits.upload_mb:g} MB and {limits.megapixels:g} million pixels.",
                    elem_classes="hint",
                )
            with gr.Column(scale=3, min_width=320):
                counts = gr.HTML(describe(None), elem_id="counts", padding=False)
                result = gr.Image(
                    type="filepath",
                    interactive=False,
                    label="People in the image",
                    show_label=False,
                    buttons=["download", "fullscreen"],
                    elem_id="result",
                )
                bar = gr.HTML("", elem_id="bar", padding=False)
                with gr.Row(equal_height=False):
                    with gr.Column(scale=4, min_width=240):
                        gr.Markdown(
                            "Click two opposite corners in the image to count the people in a box; a third click "
                            "starts a new box.",
                            elem_classes="hint",
                        )
                    clearing = gr.Button("Clear the box", size="sm", scale=1, min_width=130, elem_id="clear")
                opacity = gr.Slider(0, 1, Heat.opacity, step=0.05, label="Opacity of the heat map", elem_id="opacity")
        choice = gr.Dataset(
            components=[picture],
            samples=[[str(path)] for path in examples],
            type="index",
            label="Drawn examples",
            elem_id="examples",
        )
        gr.Markdown(
            "These are drawings, not photos; a counter trained on photos may be wrong on them.",
            elem_classes="hint",
        )
        # Gradio itself would open the file, and fail without an explanation if it is not an image.
        vars(picture)["preprocess"] = _as_sent
        shown = [state, result, counts, bar]
        # An example is set as a plain value: an update would replace the component, and its preprocess with it.
        choice.click(lambda number: str(examples[number]), choice, picture, trigger_mode="always_last", **at_once)
        changed = picture.change(lambda: nothing, None, shown, **at_once)
        # By default Gradio drops events that arrive while one is running, which would leave the previous image's count.
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


def draw_examples(folder: Path) -> list[Path]:
    """Write the drawn examples, and return their files."""
    paths = []
    for number in EXAMPLES:
        path = folder / f"drawn_crowd_of_{number}.png"
        save_picture(draw_crowd(number, seed=number)[0], path)
        paths.append(path)
    return paths


def import_gradio() -> None:
    """Import Gradio with telemetry and run history disabled.

    Raises:
        ImportError: if it is not installed, or its version is below 6.
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
    """Return the uploaded file as it is, whatever it contains."""
    return Path(payload.path) if payload is not None and payload.path else None
