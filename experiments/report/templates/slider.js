"use strict";
for (const figure of document.querySelectorAll("figure.by-scale")) {
  const input = figure.querySelector("input"), output = figure.querySelector("output");
  const frames = [...figure.querySelectorAll(".frame")];
  const show = () => {
    const place = Number(input.value), told = `w = ${frames[place].dataset.scale}`;
    frames.forEach((frame, index) => { frame.hidden = index !== place; });
    output.textContent = told;
    input.setAttribute("aria-valuetext", told);
  };
  input.addEventListener("input", show);
  show();
}
