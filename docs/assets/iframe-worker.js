// Search where the site is opened from a folder: there browsers refuse workers, so the worker's script runs in a frame.
// The theme asks for a file of this name in place of one from elsewhere (mkdocs.yml, extra.polyfills).
if (location.protocol === "file:") {
  window.Worker = class extends EventTarget {
    constructor(url) {
      super()
      this.frame = document.createElement("iframe")
      this.frame.hidden = true
      document.body.appendChild(this.frame)
      const page = this.frame.contentDocument
      page.open()
      this.frame.contentWindow.postMessage = data => this.dispatchEvent(new MessageEvent("message", { data }))
      page.write("<script src='" + url + "'></" + "script>")
      page.close()
      this.ready = new Promise(resolve => { this.frame.contentWindow.addEventListener("load", resolve) })
    }

    postMessage(data) {
      this.ready.then(() => this.frame.contentWindow.dispatchEvent(new MessageEvent("message", { data })))
    }

    terminate() {
      this.frame.remove()
    }
  }
}
