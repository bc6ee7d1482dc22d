// A figure opens large in a dialog, which brings its own keyboard handling: Escape closes, the focus returns.
const dialog = document.querySelector("dialog");
const large = dialog.querySelector("img");
for (const button of document.querySelectorAll(".zoom")) {
  button.addEventListener("click", () => {
    const image = button.querySelector("img");
    large.src = image.src;
    large.alt = image.alt;
    dialog.showModal();
  });
}
dialog.addEventListener("click", (event) => { if (event.target !== large) dialog.close(); });
// On a phone the contents start closed: they are longer than the screen.
if (matchMedia("(max-width: 40rem)").matches) document.querySelector("nav details").open = false;
