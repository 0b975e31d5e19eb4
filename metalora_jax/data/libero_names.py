"""The names of LIBERO's 130 benchmark tasks (Liu et al. 2023, arXiv:2306.03310), by scene."""

_TASKS = {
    "": """
        pick_up_the_black_bowl_between_the_plate_and_the_ramekin_and_place_it_on_the_plate
        pick_up_the_black_bowl_from_table_center_and_place_it_on_the_plate
        pick_up_the_black_bowl_in_the_top_drawer_of_the_wooden_cabinet_and_place_it_on_the_plate
        pick_up_the_black_bowl_next_to_the_cookie_box_and_place_it_on_the_plate
        pick_up_the_black_bowl_next_to_the_plate_and_place_it_on_the_plate
        pick_up_the_black_bowl_next_to_the_ramekin_and_place_it_on_the_plate
        pick_up_the_black_bowl_on_the_cookie_box_and_place_it_on_the_plate
        pick_up_the_black_bowl_on_the_ramekin_and_place_it_on_the_plate
        pick_up_the_black_bowl_on_the_stove_and_place_it_on_the_plate
        pick_up_the_black_bowl_on_the_wooden_cabinet_and_place_it_on_the_plate
        pick_up_the_alphabet_soup_and_place_it_in_the_basket
        pick_up_the_bbq_sauce_and_place_it_in_the_basket
        pick_up_the_butter_and_place_it_in_the_basket
        pick_up_the_chocolate_pudding_and_place_it_in_the_basket
        pick_up_the_cream_cheese_and_place_it_in_the_basket
        pick_up_the_ketchup_and_place_it_in_the_basket
        pick_up_the_milk_and_place_it_in_the_basket
        pick_up_the_orange_juice_and_place_it_in_the_basket
        pick_up_the_salad_dressing_and_place_it_in_the_basket
        pick_up_the_tomato_sauce_and_place_it_in_the_basket
        open_the_middle_drawer_of_the_cabinet
        open_the_top_drawer_and_put_the_bowl_inside
        push_the_plate_to_the_front_of_the_stove
        put_the_bowl_on_the_plate
        put_the_bowl_on_the_stove
        put_the_bowl_on_top_of_the_cabinet
        put_the_cream_cheese_in_the_bowl
        put_the_wine_bottle_on_the_rack
        put_the_wine_bottle_on_top_of_the_cabinet
        turn_on_the_stove
    """,
    "KITCHEN_SCENE3_": """
        turn_on_the_stove_and_put_the_moka_pot_on_it
        put_the_frying_pan_on_the_stove
        put_the_moka_pot_on_the_stove
        turn_on_the_stove
        turn_on_the_stove_and_put_the_frying_pan_on_it
    """,
    "KITCHEN_SCENE4_": """
        put_the_black_bowl_in_the_bottom_drawer_of_the_cabinet_and_close_it
        close_the_bottom_drawer_of_the_cabinet
        close_the_bottom_drawer_of_the_cabinet_and_open_the_top_drawer
        put_the_black_bowl_in_the_bottom_drawer_of_the_cabinet
        put_the_black_bowl_on_top_of_the_cabinet
        put_the_wine_bottle_in_the_bottom_drawer_of_the_cabinet
        put_the_wine_bottle_on_the_wine_rack
    """,
    "KITCHEN_SCENE6_": """
        put_the_yellow_and_white_mug_in_the_microwave_and_close_it
        close_the_microwave
        put_the_yellow_and_white_mug_to_the_front_of_the_white_mug
    """,
    "KITCHEN_SCENE8_": """
        put_both_moka_pots_on_the_stove
        put_the_right_moka_pot_on_the_stove
        turn_off_the_stove
    """,
    "LIVING_ROOM_SCENE1_": """
        put_both_the_alphabet_soup_and_the_cream_cheese_box_in_the_basket
        pick_up_the_alphabet_soup_and_put_it_in_the_basket
        pick_up_the_cream_cheese_box_and_put_it_in_the_basket
        pick_up_the_ketchup_and_put_it_in_the_basket
        pick_up_the_tomato_sauce_and_put_it_in_the_basket
    """,
    "LIVING_ROOM_SCENE2_": """
        put_both_the_alphabet_soup_and_the_tomato_sauce_in_the_basket
        put_both_the_cream_cheese_box_and_the_butter_in_the_basket
        pick_up_the_alphabet_soup_and_put_it_in_the_basket
        pick_up_the_butter_and_put_it_in_the_basket
        pick_up_the_milk_and_put_it_in_the_basket
        pick_up_the_orange_juice_and_put_it_in_the_basket
        pick_up_the_tomato_sauce_and_put_it_in_the_basket
    """,
    "LIVING_ROOM_SCENE5_": """
        put_the_white_mug_on_the_left_plate_and_put_the_yellow_and_white_mug_on_the_right_plate
        put_the_red_mug_on_the_left_plate
        put_the_red_mug_on_the_right_plate
        put_the_white_mug_on_the_left_plate
        put_the_yellow_and_white_mug_on_the_right_plate
    """,
    "LIVING_ROOM_SCENE6_": """
        put_the_white_mug_on_the_plate_and_put_the_chocolate_pudding_to_the_right_of_the_plate
        put_the_chocolate_pudding_to_the_left_of_the_plate
        put_the_chocolate_pudding_to_the_right_of_the_plate
        put_the_red_mug_on_the_plate
        put_the_white_mug_on_the_plate
    """,
    "STUDY_SCENE1_": """
        pick_up_the_book_and_place_it_in_the_back_compartment_of_the_caddy
        pick_up_the_book_and_place_it_in_the_front_compartment_of_the_caddy
        pick_up_the_book_and_place_it_in_the_left_compartment_of_the_caddy
        pick_up_the_book_and_place_it_in_the_right_compartment_of_the_caddy
        pick_up_the_yellow_and_white_mug_and_place_it_to_the_right_of_the_caddy
    """,
    "KITCHEN_SCENE10_": """
        close_the_top_drawer_of_the_cabinet
        close_the_top_drawer_of_the_cabinet_and_put_the_black_bowl_on_top_of_it
        put_the_black_bowl_in_the_top_drawer_of_the_cabinet
        put_the_butter_at_the_back_in_the_top_drawer_of_the_cabinet_and_close_it
        put_the_butter_at_the_front_in_the_top_drawer_of_the_cabinet_and_close_it
        put_the_chocolate_pudding_in_the_top_drawer_of_the_cabinet_and_close_it
    """,
    "KITCHEN_SCENE1_": """
        open_the_bottom_drawer_of_the_cabinet
        open_the_top_drawer_of_the_cabinet
        open_the_top_drawer_of_the_cabinet_and_put_the_bowl_in_it
        put_the_black_bowl_on_the_plate
        put_the_black_bowl_on_top_of_the_cabinet
    """,
    "KITCHEN_SCENE2_": """
        open_the_top_drawer_of_the_cabinet
        put_the_black_bowl_at_the_back_on_the_plate
        put_the_black_bowl_at_the_front_on_the_plate
        put_the_middle_black_bowl_on_the_plate
        put_the_middle_black_bowl_on_top_of_the_cabinet
        stack_the_black_bowl_at_the_front_on_the_black_bowl_in_the_middle
        stack_the_middle_black_bowl_on_the_back_black_bowl
    """,
    "KITCHEN_SCENE5_": """
        close_the_top_drawer_of_the_cabinet
        put_the_black_bowl_in_the_top_drawer_of_the_cabinet
        put_the_black_bowl_on_the_plate
        put_the_black_bowl_on_top_of_the_cabinet
        put_the_ketchup_in_the_top_drawer_of_the_cabinet
    """,
    "KITCHEN_SCENE7_": """
        open_the_microwave
        put_the_white_bowl_on_the_plate
        put_the_white_bowl_to_the_right_of_the_plate
    """,
    "KITCHEN_SCENE9_": """
        put_the_frying_pan_on_the_cabinet_shelf
        put_the_frying_pan_on_top_of_the_cabinet
        put_the_frying_pan_under_the_cabinet_shelf
        put_the_white_bowl_on_top_of_the_cabinet
        turn_on_the_stove
        turn_on_the_stove_and_put_the_frying_pan_on_it
    """,
    "LIVING_ROOM_SCENE3_": """
        pick_up_the_alphabet_soup_and_put_it_in_the_tray
        pick_up_the_butter_and_put_it_in_the_tray
        pick_up_the_cream_cheese_and_put_it_in_the_tray
        pick_up_the_ketchup_and_put_it_in_the_tray
        pick_up_the_tomato_sauce_and_put_it_in_the_tray
    """,
    "LIVING_ROOM_SCENE4_": """
        pick_up_the_black_bowl_on_the_left_and_put_it_in_the_tray
        pick_up_the_chocolate_pudding_and_put_it_in_the_tray
        pick_up_the_salad_dressing_and_put_it_in_the_tray
        stack_the_left_bowl_on_the_right_bowl_and_place_them_in_the_tray
        stack_the_right_bowl_on_the_left_bowl_and_place_them_in_the_tray
    """,
    "STUDY_SCENE2_": """
        pick_up_the_book_and_place_it_in_the_back_compartment_of_the_caddy
        pick_up_the_book_and_place_it_in_the_front_compartment_of_the_caddy
        pick_up_the_book_and_place_it_in_the_left_compartment_of_the_caddy
        pick_up_the_book_and_place_it_in_the_right_compartment_of_the_caddy
    """,
    "STUDY_SCENE3_": """
        pick_up_the_book_and_place_it_in_the_front_compartment_of_the_caddy
        pick_up_the_book_and_place_it_in_the_left_compartment_of_the_caddy
        pick_up_the_book_and_place_it_in_the_right_compartment_of_the_caddy
        pick_up_the_red_mug_and_place_it_to_the_right_of_the_caddy
        pick_up_the_white_mug_and_place_it_to_the_right_of_the_caddy
    """,
    "STUDY_SCENE4_": """
        pick_up_the_book_in_the_middle_and_place_it_on_the_cabinet_shelf
        pick_up_the_book_on_the_left_and_place_it_on_top_of_the_shelf
        pick_up_the_book_on_the_right_and_place_it_on_the_cabinet_shelf
        pick_up_the_book_on_the_right_and_place_it_under_the_cabinet_shelf
    """,
}
NAMES = frozenset(scene + name for scene, names in _TASKS.items() for name in names.split())
