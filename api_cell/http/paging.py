"""How much of a list one answer holds."""

from api_cell.http.call import Call


def page_size(call: Call) -> int:
    """What the client asked for, at most the settings' largest page."""
    return min(call.query.number("limit", call.api.settings.largest_page), call.api.settings.largest_page)
