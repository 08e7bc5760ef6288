// Interactive figures: drawn when they come into view, by the book's own copy of plotly.js, in the page's colours.
(() => {
  const home = new URL(".", document.currentScript.src);
  let library = null;

  function loadPlotly() {
    library ??= new Promise((resolve, reject) => {
      const script = document.createElement("script");
      Object.assign(script, { src: new URL("plotly.min.js", home), onload: resolve, onerror: reject });
      document.head.append(script);
    });
    return library;
  }

  // Opaque greys: WebGL draws translucent lines differently on light and dark pages.
  function pageColours(layout) {
    const text = getComputedStyle(document.body).color;
    const channels = text.match(/\d+/g).slice(0, 3).map(Number);
    const grid = `rgb(${channels.map((c) => Math.round(128 + (128 - c) * 0.6))})`;
    const axis = { color: text, gridcolor: grid, zerolinecolor: grid };
    const colours = { "font.color": text, "modebar.bgcolor": "rgba(0,0,0,0)", "modebar.color": "#808080", "modebar.activecolor": text };
    for (const name of Object.keys(layout)) {
      const axes = /^scene/.test(name) ? ["xaxis", "yaxis", "zaxis"].map((a) => `${name}.${a}`)
        : /^[xy]axis/.test(name) ? [name] : [];
      for (const a of axes) for (const [key, value] of Object.entries(axis)) colours[`${a}.${key}`] = value;
    }
    // Sliders and buttons: a grey that is read on both, since what lies under the pointer stays light in plotly.
    // The list of an open menu lies over the figure and needs the page's ground beneath it.
    const ground = getComputedStyle(document.documentElement).getPropertyValue("--pst-color-background").trim() || "rgba(0,0,0,0)";
    for (const part of ["sliders", "updatemenus"]) {
      (layout[part] ?? []).forEach((control, i) => Object.assign(colours, {
        [`${part}[${i}].font.color`]: "#808080",
        [`${part}[${i}].bgcolor`]: part === "sliders" ? grid : control.type === "dropdown" ? ground : "rgba(0,0,0,0)",
      }));
    }
    return colours;
  }

  async function draw(place) {
    const figure = JSON.parse(place.querySelector("script").textContent);
    await loadPlotly();
    const config = { displaylogo: false, responsive: true, scrollZoom: false };
    await Plotly.newPlot(place, { ...figure, config });
    await Plotly.relayout(place, pageColours(place._fullLayout));
    place.classList.add("drawn");
  }

  document.addEventListener("DOMContentLoaded", () => {
    const places = document.querySelectorAll(".interactive");
    if (!places.length) return;
    const seen = new IntersectionObserver((entries) => {
      for (const { isIntersecting, target } of entries) {
        if (isIntersecting) { seen.unobserve(target); draw(target); }
      }
    }, { rootMargin: "400px" });
    places.forEach((place) => seen.observe(place));
    new MutationObserver(() => {
      document.querySelectorAll(".interactive.drawn").forEach((p) => Plotly.relayout(p, pageColours(p._fullLayout)));
    }).observe(document.documentElement, { attributes: true, attributeFilter: ["data-theme"] });
  });
})();
