// Copying works on this machine and over https; on plain http from elsewhere browsers hide the clipboard, and the old way
// (select a field, ask the document) still works.

export async function copyText(text: string): Promise<boolean> {
  if (window.isSecureContext && navigator.clipboard) {
    try {
      await navigator.clipboard.writeText(text)
      return true
    } catch {
      // Refused by the browser's settings: try the old way.
    }
  }
  const field = document.createElement('textarea')
  field.value = text
  field.className = 'hidden-label'
  document.body.append(field)
  field.select()
  const done = document.execCommand('copy')
  field.remove()
  return done
}
