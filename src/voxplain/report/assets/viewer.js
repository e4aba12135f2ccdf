"use strict";
// Three planes and 3D. Without WebGL 2 the static planes of the page stand in.
(() => {
  const state = document.body.dataset;
  const { viewer: data } = JSON.parse(document.getElementById("page-data").textContent);
  const byId = (id) => document.getElementById(id);
  const text = (id) => byId(id).textContent;
  const SUPERSCRIPT = { "-": "⁻", 0: "⁰", 1: "¹", 2: "²", 3: "³", 4: "⁴", 5: "⁵", 6: "⁶", 7: "⁷", 8: "⁸", 9: "⁹" };

  function number(value) {
    if (value === 0) return "0";
    const [mantissa, exponent] = Math.abs(value).toExponential(1).split("e");
    const power = Number(exponent);
    const sign = value < 0 ? "−" : "";
    if (power >= -3 && power < 6) return sign + Number(Math.abs(value).toPrecision(2));
    const raised = [...String(power)].map((c) => SUPERSCRIPT[c]).join("");
    return `${sign}${mantissa.replace(".0", "")} × 10${raised}`;
  }

  const IN_WORLD = true; // else the viewer takes an oblique image for one along the axes
  let nv = null;
  let current = null; // the map that is shown: its volume and its description
  let labels = null; // the label volume that is shown, and its names
  let turn = 0; // of quick changes of target only the last one counts

  async function volume(id, name, options = {}) {
    const made = await niivue.NVImage.loadFromBase64({ base64: text(id), name: `${name}.nii.gz` });
    return Object.assign(made, options);
  }

  // Pages of one channel and method have no such choice.
  const chosen = (id) => (byId(id) ? Number(byId(id).value) : 0);
  const image = () => data.images[chosen("channel")];

  function limit() {
    const isShared = byId("shared") && byId("shared").checked;
    return isShared ? Math.max(...data.maps.map((map) => map.limit)) : current.map.limit;
  }

  function drawMap() {
    if (!current) {
      for (const id of data.maps.length ? ["threshold-value", "scale-low", "scale-high"] : []) {
        byId(id).textContent = "";
      }
      return;
    }
    const end = limit();
    const threshold = (end * byId("threshold").value) / 100;
    Object.assign(current.volume, {
      cal_min: threshold / current.map.unit,
      cal_max: end / current.map.unit,
      opacity: byId("opacity").value / 100,
    });
    byId("threshold-value").textContent = number(threshold);
    byId("scale-low").textContent = number(data.isSigned ? -end : 0);
    byId("scale-high").textContent = `${number(end)} ${current.map.words ?? data.unit}`;
    nv.updateGLVolume();
  }

  function remove(volumeShown) {
    if (volumeShown) nv.removeVolume(volumeShown);
  }

  function moveTo(index) {
    nv.scene.crosshairPos = nv.mm2frac(data.focus[index], 0, IN_WORLD);
  }

  async function showMap(index) {
    const mine = ++turn;
    const map = data.maps.find((other) => other.target === index
      && (other.method ?? 0) === chosen("method") && (other.channel ?? 0) === chosen("channel"));
    const made = map
      ? await volume(map.id, "map", { colormapType: 2, colormapNegative: "voxplain-against" })
      : null;
    if (mine !== turn) return;
    remove(current && current.volume);
    current = null;
    if (made) {
      made.colormap = "voxplain-for";
      current = { volume: made, map };
      Object.assign(made, { cal_min: 0, cal_max: 1 });
      nv.addVolume(made);
    }
    drawMap();
    nv.drawScene();
    readout(nv.scene.crosshairPos);
  }

  async function showImage() {
    const mine = image();
    const made = await volume(mine.id, "image", { cal_min: mine.window[0], cal_max: mine.window[1] });
    if (mine !== image()) return;
    const old = nv.volumes[0];
    nv.addVolume(made);
    if (old) {
      nv.setVolume(made, 0);
      nv.removeVolume(old);
    }
  }

  async function showLabels(index) {
    remove(labels && labels.volume);
    labels = null;
    if (index >= 0) {
      const found = data.labels[index];
      const made = await volume(found.id, "labels", { opacity: 0.45 });
      const channel = (c) => [0, ...found.colours.map((colour) => colour[c])];
      made.setColormapLabel({
        R: channel(0), G: channel(1), B: channel(2),
        A: [0, ...found.colours.map(() => 255)],
        I: found.names.map((_, i) => i),
      });
      labels = { volume: made, names: found.names };
      nv.addVolume(made);
      if (current) nv.setVolume(current.volume, nv.volumes.length - 1); // the map lies on top
    }
    nv.updateGLVolume();
  }

  function at(shown, mm) {
    const voxel = shown.mm2vox(mm);
    if (voxel.some((v, i) => v < 0 || v >= shown.dimsRAS[i + 1])) return undefined; // a map's crop
    return shown.getValue(voxel[0], voxel[1], voxel[2]);
  }

  function readout(frac) {
    const mm = [...nv.frac2mm(frac, 0, IN_WORLD)].slice(0, 3);
    const place = mm.map((v, i) => `${["LR", "PA", "IS"][i][v < 0 ? 0 : 1]} ${Math.abs(v).toFixed(1)}`);
    const parts = [`${place.join("  ")} mm`, `${image().name} ${number(at(nv.volumes[0], mm))}`];
    for (const found of data.labels) {
      const layer = names.get(found.id);
      if (layer) parts.push(`${found.name}: ${found.names[at(layer, mm)] ?? "?"}`);
    }
    const stored = current ? at(current.volume, mm) : undefined;
    if (stored !== undefined) {
      const value = stored * current.map.unit;
      const isEnd = value !== 0 && Math.abs(value) > 0.9999 * current.map.limit;
      parts.push(`a = ${number(value)}${isEnd ? " or beyond" : ""}`);
    }
    byId("readout").textContent = parts.join("   ·   ");
  }

  const names = new Map(); // label volumes for the readout; read, never drawn

  function hover(event) {
    const box = event.target.getBoundingClientRect();
    const scale = nv.uiData.dpr || 1;
    const frac = nv.canvasPos2frac([(event.clientX - box.left) * scale, (event.clientY - box.top) * scale]);
    if (frac[0] >= 0) readout(frac);
  }

  function listen() {
    byId("view").addEventListener("change", (e) => nv.setSliceType(Number(e.target.value)));
    byId("labels").addEventListener("change", (e) => showLabels(Number(e.target.value)));
    const window_ = byId("window");
    if (window_) {
      window_.addEventListener("change", () => {
        const [low, high] = window_.value.split(",").map(Number);
        Object.assign(nv.volumes[0], { cal_min: low, cal_max: high });
        nv.updateGLVolume();
      });
    }
    for (const id of data.maps.length ? ["opacity", "threshold", "shared"] : []) {
      if (byId(id)) byId(id).addEventListener("input", drawMap);
    }
    for (const id of ["channel", "method"].filter(byId)) {
      byId(id).addEventListener("change", async () => {
        if (id === "channel") await showImage();
        await showMap(chosen("target"));
      });
    }
    byId("canvas").addEventListener("mousemove", hover);
    document.addEventListener("target", (e) => {
      moveTo(e.detail);
      showMap(e.detail);
    });
  }

  async function start() {
    const canvas = byId("canvas");
    nv = new niivue.Niivue({
      isRadiologicalConvention: true,
      sagittalNoseLeft: true,
      multiplanarShowRender: niivue.SHOW_RENDER.ALWAYS,
      multiplanarLayout: niivue.MULTIPLANAR_TYPE.GRID,
      backColor: [0.08, 0.094, 0.114, 1],
      crosshairColor: [0.38, 0.89, 0.42, 0.75],
      crosshairWidth: 0.3,
      crosshairWidthUnit: "percent",
      fontColor: [0.92, 0.94, 0.96, 1],
      tileMargin: 6,
      show3Dcrosshair: true,
      isColorbar: false,
      dragAndDropEnabled: false,
      scrollRequiresFocus: true,
      loadingText: "",
      logLevel: "error",
    });
    await nv.attachToCanvas(canvas);
    nv.addColormap("voxplain-for", data.colours.positive);
    nv.addColormap("voxplain-against", data.colours.negative);
    nv.onLocationChange = (location) => readout(location.frac);
    await showImage();
    for (const found of data.labels) names.set(found.id, await volume(found.id, "labels"));
    nv.setSliceType(niivue.SLICE_TYPE.MULTIPLANAR);
    nv.setRenderAzimuthElevation(150, 12);
    listen();
    if (chosen("labels") >= 0) await showLabels(chosen("labels"));
    moveTo(chosen("target"));
    await showMap(chosen("target"));
  }

  const probe = document.createElement("canvas").getContext("webgl2");
  if (!probe) {
    state.viewer = "static";
    return;
  }
  const lose = probe.getExtension("WEBGL_lose_context");
  if (lose) lose.loseContext();
  state.viewer = "loading"; // shows the canvas, which must have its size before drawing starts
  start().then(
    () => { state.viewer = "ready"; },
    (error) => {
      state.viewer = "failed";
      byId("viewer-error").textContent = String(error);
    },
  );
})();
