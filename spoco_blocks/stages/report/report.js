"use strict";
(async () => {
  const root = document.getElementById("viewer");
  const source = document.getElementById("viewer-data");
  if (!root || !source) return;
  if (typeof DecompressionStream === "undefined") {
    document.documentElement.classList.remove("js"); // the still pictures stay
    return;
  }
  const data = JSON.parse(source.textContent);
  const [Z, Y, X] = data.shape;
  const PLANES = {
    xy: { normal: 0, across: 2, down: 1 },
    xz: { normal: 1, across: 2, down: 0 },
    yz: { normal: 2, across: 0, down: 1 },
  };
  const place = [...data.place];
  const voxel = Z > 1 && !data.independent ? "voxels" : "pixels";
  const form = root.querySelector("form");
  const layers = {};

  async function inflate(base64) {
    const bytes = Uint8Array.from(atob(base64), (c) => c.charCodeAt(0));
    const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("deflate"));
    return new Response(stream).arrayBuffer();
  }

  // Grey values come as differences along x.
  async function grey(layer, width) {
    const values = new Uint8Array(await inflate(layer.data));
    for (let row = 0; row < values.length; row += width) {
      for (let x = 1; x < width; x++) values[row + x] += values[row + x - 1];
    }
    const scale = 255 / ((1 << layer.bits) - 1);
    return values.map((v) => Math.round(v * scale));
  }

  async function labels(layer) {
    const rgb = Uint8Array.from(atob(layer.colours), (c) => c.charCodeAt(0));
    return { ...layer, places: new Uint16Array(await inflate(layer.data)), rgb };
  }

  const packed = data.layers;
  layers.raw = await grey(packed.raw, X);
  if (packed.foreground) layers.foreground = await grey(packed.foreground, X);
  if (packed.embeddings) {
    layers.embeddings = await grey(packed.embeddings, packed.embeddings.shape[2]);
  }
  layers.segments = await labels(packed.segments);
  if (packed.truth) layers.truth = await labels(packed.truth);

  const choice = (name) => form.elements[name].value;
  const index = (p) => (p[0] * Y + p[1]) * X + p[2];

  // One slice of everything at the resolution of the arrays; `each` gets the voxel's place for every pixel.
  function sweep(plane, each) {
    const { normal, across, down } = PLANES[plane];
    const width = data.shape[across];
    const height = data.shape[down];
    const p = [0, 0, 0];
    p[normal] = place[normal];
    let pixel = 0;
    for (p[down] = 0; p[down] < height; p[down]++) {
      for (p[across] = 0; p[across] < width; p[across]++) each(p, pixel++);
    }
  }

  function basePixels(plane, out) {
    const kind = choice("base");
    if (kind === "embeddings") {
      const [z, y, x] = packed.embeddings.shape;
      const one = z * y * x;
      sweep(plane, (p, pixel) => {
        const at = (p[0] * y + (p[1] >> 1)) * x + (p[2] >> 1);
        for (let c = 0; c < 3; c++) out[4 * pixel + c] = layers.embeddings[c * one + at];
        out[4 * pixel + 3] = 255;
      });
      return;
    }
    const values = layers[kind];
    sweep(plane, (p, pixel) => {
      out.fill(values[index(p)], 4 * pixel, 4 * pixel + 3);
      out[4 * pixel + 3] = 255;
    });
  }

  // A pixel is on the outline when it differs from the one to the right or below.
  function labelPixels(plane, out, layer, outline, white, alpha) {
    const { across, down } = PLANES[plane];
    const stride = [Y * X, X, 1];
    const places = layer.places;
    sweep(plane, (p, pixel) => {
      const at = index(p);
      let id = places[at];
      if (outline) {
        const right = p[across] + 1 < data.shape[across] ? places[at + stride[across]] : id;
        const below = p[down] + 1 < data.shape[down] ? places[at + stride[down]] : id;
        if (right === id && below === id) return;
        id = id || right || below;
      }
      if (!id) return;
      for (let c = 0; c < 3; c++) out[4 * pixel + c] = white ? 255 : layer.rgb[3 * (id - 1) + c];
      out[4 * pixel + 3] = alpha;
    });
  }

  function buffer(width, height, paint) {
    const canvas = document.createElement("canvas");
    canvas.width = width;
    canvas.height = height;
    const context = canvas.getContext("2d");
    const image = context.createImageData(width, height);
    paint(image.data);
    context.putImageData(image, 0, 0);
    return canvas;
  }

  function unit(length) {
    if (!data.known) return `${+length.toPrecision(3)} ${voxel}`;
    if (length >= 1e6) return `${+(length / 1e6).toPrecision(3)} mm`;
    return length >= 1000 ? `${+(length / 1000).toPrecision(3)} µm` : `${+length.toPrecision(3)} nm`;
  }

  function scaleBar(context, width, height, length, ratio) {
    const limit = length * 0.28;
    const power = 10 ** Math.floor(Math.log10(limit));
    const bar = [5, 2, 1].map((m) => m * power).find((v) => v <= limit) || power;
    const pixels = (bar / length) * width;
    const margin = 18 * ratio;
    context.fillStyle = "#000a";
    context.beginPath();
    context.roundRect(width - margin - pixels - 9 * ratio, height - margin - 25 * ratio, pixels + 18 * ratio, 36 * ratio, 7 * ratio);
    context.fill();
    context.fillStyle = "#fff";
    context.fillRect(width - margin - pixels, height - margin, pixels, 3 * ratio);
    context.font = `${13 * ratio}px system-ui, sans-serif`;
    context.textAlign = "center";
    context.fillText(unit(bar), width - margin - pixels / 2, height - margin - 7 * ratio);
  }

  function marks(context, plane, width, height, ratio) {
    const { normal, across, down } = PLANES[plane];
    const sx = width / data.shape[across];
    const sy = height / data.shape[down];
    if (data.scored) {
      const [a, b] = data.scored;
      if (place[normal] >= a[normal] && place[normal] < b[normal]) {
        context.strokeStyle = "#ffd166";
        context.lineWidth = 1.5 * ratio;
        context.setLineDash([7 * ratio, 5 * ratio]);
        context.strokeRect(a[across] * sx, a[down] * sy, (b[across] - a[across]) * sx, (b[down] - a[down]) * sy);
        context.setLineDash([]);
      }
    }
    const x = (place[across] + 0.5) * sx;
    const y = (place[down] + 0.5) * sy;
    const gap = 9 * ratio;
    context.beginPath();
    for (const [x0, y0, x1, y1] of [
      [0, y, x - gap, y], [x + gap, y, width, y], [x, 0, x, y - gap], [x, y + gap, x, height],
    ]) {
      context.moveTo(x0, y0);
      context.lineTo(x1, y1);
    }
    for (const [colour, thick] of [["#0007", 3], ["#fffc", 1]]) {
      context.strokeStyle = colour;
      context.lineWidth = thick * ratio;
      context.stroke();
    }
    if (plane === "xy") scaleBar(context, width, height, data.pixel[across] * data.shape[across], ratio);
  }

  function draw(view) {
    const { plane, canvas } = view;
    const { across, down } = PLANES[plane];
    const ratio = Math.min(window.devicePixelRatio || 1, 2);
    const width = Math.max(1, Math.round(canvas.clientWidth * ratio));
    const height = Math.max(1, Math.round(canvas.clientHeight * ratio));
    if (canvas.width !== width) canvas.width = width;
    if (canvas.height !== height) canvas.height = height;
    const context = canvas.getContext("2d");
    const [w, h] = [data.shape[across], data.shape[down]];
    context.imageSmoothingEnabled = true;
    context.drawImage(buffer(w, h, (out) => basePixels(plane, out)), 0, 0, width, height);
    const over = choice("over");
    const opacity = form.elements.opacity.value / 100;
    const outline = choice("style") === "line";
    const colours = buffer(w, h, (out) => {
      if (over === "none") return;
      const layer = over === "truth" ? layers.truth : layers.segments;
      const alpha = outline ? Math.min(255, 90 + 240 * opacity) : 255 * opacity;
      labelPixels(plane, out, layer, outline, false, alpha);
      if (over === "both") labelPixels(plane, out, layers.truth, true, true, 235);
    });
    context.imageSmoothingEnabled = false;
    context.drawImage(colours, 0, 0, width, height);
    marks(context, plane, width, height, ratio);
  }

  function placeText(axis) {
    const voxel = data.start[axis] + place[axis] * data.step[axis];
    if (data.independent && axis === 0) return `image ${voxel}`;
    const name = "zyx"[axis];
    return data.known ? `${name} ${unit((voxel * data.pixel[axis]) / data.step[axis])}` : `${name} ${voxel}`;
  }

  function read() {
    const at = index(place);
    const put = (name, text, rgb) => {
      const cell = root.querySelector(`[data-read=${name}]`);
      if (!cell) return;
      cell.textContent = text;
      if (!rgb) return;
      const swatch = document.createElement("i");
      swatch.className = "swatch";
      swatch.style.background = `rgb(${rgb.join()})`;
      cell.prepend(swatch);
    };
    const axes = Z > 1 ? [0, 1, 2] : [1, 2];
    put("place", axes.map(placeText).join(", "));
    for (const name of ["segments", "truth"]) {
      const layer = layers[name];
      if (!layer) continue;
      const id = layer.places[at];
      const voxels = id && layer.voxels && layer.voxels[id - 1];
      const size = voxels ? `, ${voxels.toLocaleString("en")} ${voxel}` : "";
      const text = id ? `${layer.ids[id - 1]}${size}` : "none";
      put(name === "truth" ? "truth" : "segment", text, id && [...layer.rgb.slice(3 * id - 3, 3 * id)]);
    }
    if (layers.foreground) put("foreground", `${Math.round(layers.foreground[at] / 2.55)} %`);
  }

  let waiting = false;
  function refresh() {
    if (waiting) return;
    waiting = true;
    requestAnimationFrame(() => {
      waiting = false;
      for (const view of views) {
        const { normal } = PLANES[view.plane];
        if (view.slider) view.slider.value = place[normal];
        if (data.shape[normal] > 1) view.output.textContent = placeText(normal);
        draw(view);
      }
      read();
    });
  }

  function connect(figure) {
    const view = {
      plane: figure.dataset.plane,
      canvas: figure.querySelector("canvas"),
      slider: figure.querySelector("input"),
      output: figure.querySelector("output"),
    };
    const { normal, across, down } = PLANES[view.plane];
    const go = (event) => {
      const box = view.canvas.getBoundingClientRect();
      const at = (v, n) => Math.min(n - 1, Math.max(0, Math.floor(v * n)));
      place[across] = at((event.clientX - box.left) / box.width, data.shape[across]);
      place[down] = at((event.clientY - box.top) / box.height, data.shape[down]);
      refresh();
    };
    view.canvas.addEventListener("pointerdown", (event) => {
      view.canvas.setPointerCapture(event.pointerId);
      go(event);
    });
    view.canvas.addEventListener("pointermove", (event) => event.buttons && go(event));
    view.slider?.addEventListener("input", () => {
      place[normal] = +view.slider.value;
      refresh();
    });
    figure.querySelector("img").hidden = true;
    figure.querySelector("img").style.display = "none";
    view.canvas.hidden = false;
    new ResizeObserver(refresh).observe(view.canvas);
    return view;
  }

  const views = [...root.querySelectorAll(".view")].map(connect);
  form.addEventListener("input", refresh);
  refresh();
})().catch((error) => {
  document.documentElement.classList.remove("js");
  console.error(error);
});
