changecom`'define(`VERSION_TEXT', `2.3.4')dnl
#define TINY_VERSION_STRING "VERSION_TEXT"
