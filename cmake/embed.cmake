# Writes a C file that holds files as bytes: cmake -DOUT=file.c "-DFILES=a;b" -P embed.cmake
# Each becomes `const unsigned char rt_asset_<name>[]` (other characters than letters and digits: _) and `..._size`.
set(text "/* made by cmake/embed.cmake */\n#include <stddef.h>\n\n#include \"serve/admin_page.h\"\n\n")
foreach(path IN LISTS FILES)
    get_filename_component(name ${path} NAME)
    string(REGEX REPLACE "[^A-Za-z0-9]" "_" name ${name})
    file(READ ${path} hex HEX)
    string(REGEX REPLACE "([0-9a-f][0-9a-f])" "0x\\1," bytes "${hex}")
    string(REGEX REPLACE "((0x..,)(0x..,)(0x..,)(0x..,)(0x..,)(0x..,)(0x..,)(0x..,))" "\\1\n" bytes "${bytes}")
    string(APPEND text "const unsigned char rt_asset_${name}[] = {${bytes}};\nconst size_t rt_asset_${name}_size = sizeof rt_asset_${name};\n\n")
endforeach()
file(WRITE ${OUT} "${text}")
