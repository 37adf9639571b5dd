// Elements, made of names and texts. Nothing that comes from the API is ever read as markup.

/** An element with attributes and children; texts stay texts. */
export function element(name, attributes = {}, ...children) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) {
    if (value !== undefined && value !== false) made.setAttribute(key, value === true ? "" : value);
  }
  made.append(...children.flat().filter((child) => child !== null && child !== undefined));
  return made;
}

/** The element with this id. */
export const byId = (id) => document.getElementById(id);

/** Sets a text, and says whether it is another. */
export function setText(of, text) {
  if (of.textContent === text) return false;
  of.textContent = text;
  return true;
}

/** Draws the eye to a change. */
export function flash(of) {
  of.classList.remove("flash");
  // The animation starts anew only when the style was computed without it.
  void of.offsetWidth;
  of.classList.add("flash");
}
